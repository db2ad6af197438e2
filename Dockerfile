# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS build
# zlib-ng and aws-lc are built with cmake. Their versions are those of the image's Debian release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake build-essential \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# The dependencies have a layer of their own, which is rebuilt only when they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
    && cargo build --release --locked \
    && rm -r src
COPY src src
# The placeholders above have newer timestamps than the real files: touch these, so that cargo rebuilds.
RUN find src -type f -exec touch {} + && cargo build --release --locked --bin portcullis
RUN mkdir /empty

# Contains glibc, libgcc and root certificates; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
# Each folder by its own path: a copy to / would give /etc and /var to the gateway's user as well.
COPY --from=build /empty /etc/portcullis
COPY --from=build --chown=65532:65532 /empty /var/lib/portcullis
COPY --from=build /build/target/release/portcullis /usr/local/bin/portcullis
# The location of `sqlite:portcullis.db`, and the only folder that the gateway writes to; mount a volume to
# persist users. The root file system may be read-only, and no capability is needed.
WORKDIR /var/lib/portcullis
VOLUME /var/lib/portcullis
# The user `nonroot`, by number, so that orchestrators can tell that it is not root.
USER 65532:65532
EXPOSE 8080 9090
# Asks the admin listener, whose default is 127.0.0.1:9090. With another `admin.bind`, override it:
# `docker run --health-cmd '/usr/local/bin/portcullis health --admin URL'`. Kubernetes ignores it and queries
# GET /health (liveness) and GET /ready (readiness).
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/portcullis", "health"]
ENTRYPOINT ["/usr/local/bin/portcullis"]
CMD ["run", "--config", "/etc/portcullis/portcullis.yaml", "--log-format", "json"]
