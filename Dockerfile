# Two stages: the final image has no build files.
ARG BASE=python:3.12.12-slim-bookworm
FROM ${BASE} AS build
WORKDIR /build
COPY requirements.txt pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/confide \
 && /opt/confide/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.txt \
 && /opt/confide/bin/pip install --no-cache-dir --no-deps .

FROM ${BASE}
RUN useradd --system --uid 10001 --home-dir /var/lib/confide --create-home confide \
 && install -d -o confide -g confide -m 0700 /var/lib/confide/data
COPY --from=build /opt/confide /opt/confide
ENV PATH=/opt/confide/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CONFIDE_DATA=/var/lib/confide/data
USER confide
WORKDIR /var/lib/confide
VOLUME /var/lib/confide/data
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=6 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"APP_PORT\", 8080)}/health/ready', timeout=2)"]
CMD ["confide", "serve"]
