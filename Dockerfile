# The pipeline and the reference application's handlers: one image, any command of the CLI.

FROM python:3.13-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY workers workers
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir '.[gateway,postgres,redis]'

FROM python:3.13-slim
RUN useradd --create-home --uid 10001 pipeline && install -d -o pipeline /app
COPY --from=build /opt/venv /opt/venv
COPY topology /app/topology
WORKDIR /app
USER pipeline
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
# Exec form: SIGTERM must reach the worker, which then drains.
ENTRYPOINT ["pipeline"]
CMD ["--help"]
