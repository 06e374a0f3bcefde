# An image that can take the place of the reference implementation's: it accepts
# swpt-server, swpt-client, swpt-drainer and configure-queue, and runs as the same
# user. Any other command of peerlink works as well, for example "serve".
#
#   docker build --build-arg VERSION="$(git describe --tags --always)" -t peerlink .

FROM golang:1.26-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG COMMIT=
RUN CGO_ENABLED=0 go build -trimpath \
      -ldflags "-s -w -X peerlink/cmd/peerlink/internal/cli.version=$VERSION -X peerlink/cmd/peerlink/internal/cli.commit=$COMMIT" \
      -o /image/usr/local/bin/peerlink ./cmd/peerlink
# The four names, and the path of the reference's entry point, which some
# manifests name. /tmp is for the embedded broker.
RUN for name in swpt-server swpt-client swpt-drainer configure-queue; do \
      ln -s peerlink "/image/usr/local/bin/$name"; \
    done \
 && mkdir -p /image/usr/src/app /image/etc/ssl/certs \
 && ln -s /usr/local/bin/peerlink /image/usr/src/app/entrypoint.sh \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && mkdir -m 1777 /image/tmp

FROM scratch
COPY --from=build /image/ /
ENV PATH=/usr/local/bin APP_LOG_LEVEL=warning
WORKDIR /usr/src/app
# The numbers that adduser gives in the reference's image. Volumes and secrets
# that were readable stay so.
USER 100:101
EXPOSE 1234
ENTRYPOINT ["/usr/local/bin/peerlink"]
CMD ["swpt-server"]
