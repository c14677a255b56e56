# syntax=docker/dockerfile:1
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential cmake libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release && cp target/release/alluvium /usr/local/bin/alluvium

FROM debian:bookworm-slim
# curl is for the health check.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/alluvium --create-home alluvium
COPY --from=build /usr/local/bin/alluvium /usr/local/bin/alluvium
COPY config /etc/alluvium
USER alluvium
WORKDIR /var/lib/alluvium
VOLUME /var/lib/alluvium
EXPOSE 8080
# A replay of a long log takes a while before it is ready; alive it is from the start.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD curl -fsS http://127.0.0.1:8080/health/live
# Others reach this address, so writes need credentials, or `allow_anonymous_writes = true`.
ENTRYPOINT ["alluvium"]
CMD ["serve", "--listen", "0.0.0.0:8080", "--data-dir", "/var/lib/alluvium"]
