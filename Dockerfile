# Builds the one binary, and an image with it and the two libraries it links to (OpenSSL, zlib).
FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential pkg-config libssl-dev zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package tidewire \
 && cp target/release/tidewire /usr/local/bin/tidewire

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --create-home --home-dir /var/lib/tidewire tidewire
COPY --from=build /usr/local/bin/tidewire /usr/local/bin/tidewire
USER tidewire
ENV TIDEWIRE_DATA_DIR=/var/lib/tidewire/data \
    TIDEWIRE_LISTEN=127.0.0.1:7432 \
    TIDEWIRE_HTTP_LISTEN=127.0.0.1:7433
EXPOSE 7432 7433
ENTRYPOINT ["tidewire"]
