# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS build
# zlib-ng and aws-lc are built with cmake.
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
RUN mkdir -p /rootfs/var/lib/portcullis /rootfs/etc/portcullis

# Contains glibc, libgcc and root certificates; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build --chown=nonroot:nonroot /rootfs/ /
COPY --from=build /build/target/release/portcullis /usr/local/bin/portcullis
# The location of `sqlite:portcullis.db`; mount a volume to persist users.
WORKDIR /var/lib/portcullis
VOLUME /var/lib/portcullis
USER nonroot
EXPOSE 8080 9090
# No HEALTHCHECK, because admin.bind depends on the configuration. Use `portcullis health --admin URL` for
# one. Orchestrators query GET /health (liveness) and GET /ready (readiness) on the admin listener, which
# must be bound to an address that they can reach.
ENTRYPOINT ["/usr/local/bin/portcullis"]
CMD ["run", "--config", "/etc/portcullis/portcullis.yaml", "--log-format", "json"]
