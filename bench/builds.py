"""Builds the programs to be measured."""

import os
import pathlib
import subprocess

from processes import ROOT, Unavailable, need

# Pingora as people build it. A separate project, because build profiles are per project.
PLAIN = ROOT / "bench" / "plain"


def arguments(parser):
    """Adds the options that select the builds."""
    parser.add_argument("--debug", action="store_true", help="use debug builds, to test the script itself")
    parser.add_argument(
        "--gateway", type=pathlib.Path, metavar="PATH",
        help="measure this binary instead of building one; examples in its directory are used if present",
    )


def words(options):
    """Describes the builds, for the line above a table."""
    if options.gateway:
        return f"an existing binary ({options.gateway.name})"
    return "debug builds, not for publication" if options.debug else "release builds"


def target():
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


class Binaries:
    """The gateway, the examples that a benchmark needs, and nginx."""

    nginx = "nginx"

    def __init__(self, options, *examples, symbols=False):
        self.debug = options.debug
        # The release profile strips symbols; `profiling` is the same code with them.
        profile = "debug" if options.debug else "profiling" if symbols else "release"
        folder = target() / profile
        self.portcullis, self.examples = folder / "portcullis", folder / "examples"
        beside = None
        if options.gateway:
            self.portcullis = options.gateway.resolve()
            beside = self.portcullis.parent / "examples"
        self.beside = beside
        wanted = [] if options.gateway else [["--bin", "portcullis"]]
        if beside and all((beside / example).exists() for example in examples):
            self.examples = beside
        else:
            wanted += [["--example", example] for example in examples]
        for one in wanted:
            need("cargo")
            build = ["cargo", "build", "--quiet", *([] if options.debug else ["--profile", profile]), *one]
            subprocess.run(build, cwd=ROOT, check=True)

    def plain(self):
        """Pingora as people build it."""
        if self.beside and (self.beside / "plain").exists():
            return self.beside / "plain"
        need("cargo")
        into = target() / "plain"
        command = ["cargo", "build", "--quiet", "--locked", "--target-dir", into]
        try:
            subprocess.run(command + ([] if self.debug else ["--release"]), cwd=PLAIN, check=True)
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"bench/plain could not be built: {error}") from None
        return into / ("debug" if self.debug else "release") / "plain"
