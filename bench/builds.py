"""The programs that are measured, built as far as they have to be."""

import os
import pathlib
import subprocess

from processes import ROOT, Unavailable, need

# Pingora as people build it: a project of its own, for a profile belongs to a project.
PLAIN = ROOT / "bench" / "plain"


def arguments(parser):
    """What every bench can be told about the builds."""
    parser.add_argument("--debug", action="store_true", help="debug builds, to try the script itself")
    parser.add_argument(
        "--gateway", type=pathlib.Path, metavar="PATH",
        help="measure this binary instead of building one; the examples beside it are used if they are there",
    )


def words(options):
    """What is said of the builds above a table."""
    if options.gateway:
        return f"an existing binary ({options.gateway.name})"
    return "debug builds, no figures to quote" if options.debug else "release builds"


def target():
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


class Binaries:
    """The gateway, and the examples that a bench needs."""

    def __init__(self, options, *examples):
        self.debug = options.debug
        folder = target() / ("debug" if options.debug else "release")
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
            release = [] if options.debug else ["--release"]
            subprocess.run(["cargo", "build", "--quiet", *release, *one], cwd=ROOT, check=True)

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
