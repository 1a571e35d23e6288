# Two stages: the final image has no build files. Any base with Python 3.11 to 3.13 as `python` will do.
ARG BASE=python:3.12.12-slim-bookworm
FROM ${BASE} AS build
WORKDIR /build
COPY requirements.txt pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/confide \
 && /opt/confide/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.txt \
 && /opt/confide/bin/pip install --no-cache-dir --no-deps .

FROM ${BASE}
# The data folder belongs to the group root as well, because OpenShift runs images as an arbitrary user of that group.
RUN useradd --system --uid 10001 --home-dir /var/lib/confide --create-home confide \
 && install -d -o confide -g root -m 0770 /var/lib/confide/data
COPY --from=build /opt/confide /opt/confide
ENV PATH=/opt/confide/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CONFIDE_DATA=/var/lib/confide/data
# A number, so that Kubernetes can check that the user is not root.
USER 10001
WORKDIR /var/lib/confide
VOLUME /var/lib/confide/data
EXPOSE 8080
# Uses the port and the TLS settings of the environment, like `confide serve`.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=6 CMD ["confide", "health"]
CMD ["confide", "serve"]
