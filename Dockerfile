# cheetah-db in a container: built from this checkout, run by a user of its own.
#   docker build -t cheetah-db .          or without an engine: deploy/build-image.sh
#   docker run -p 127.0.0.1:8080:8080 -v cheetah:/data -e CHEETAH_ALLOW_ANONYMOUS=true cheetah-db
# Every option of `cheetah-db serve --help` is an environment variable too. The server listens on all addresses of the
# container, so it starts only with CHEETAH_TOKENS (a file of tokens) or where CHEETAH_ALLOW_ANONYMOUS says that the network
# is closed. `docker stop` drains for CHEETAH_DRAIN_SECONDS (5) and takes a checkpoint: give it --stop-timeout 60.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
WORKDIR /src
COPY deploy/install-deps.sh deploy/
RUN deploy/install-deps.sh build
COPY CMakeLists.txt CMakePresets.json ./
COPY cmake cmake
COPY openapi openapi
COPY console/dist console/dist
COPY include include
COPY src src
RUN cmake --preset release -DCHEETAH_TESTS=OFF && cmake --build --preset release --target cheetah-db \
 && strip -o /cheetah-db build/release/cheetah-db

FROM ${BASE}
LABEL org.opencontainers.image.version="0.2.0" org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update -q \
 && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
      libmicrohttpd12 libgnutls30 libjansson4 libb64-0d libb2-1 libcurl4 libedit2 libzstd1 zlib1g \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /usr/share/doc/* \
 && groupadd --gid 10001 cheetah && useradd --uid 10001 --gid 10001 --home-dir /data --shell /usr/sbin/nologin cheetah \
 && mkdir /data && chown cheetah:cheetah /data
COPY --from=build /cheetah-db /usr/local/bin/cheetah-db
RUN cheetah-db --version
ENV CHEETAH_LISTEN=0.0.0.0:8080 CHEETAH_DATA=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=3 CMD ["cheetah-db", "health"]
ENTRYPOINT ["cheetah-db"]
CMD ["serve"]
