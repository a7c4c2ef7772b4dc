# An image with the command line: docker build -t selfdistill . ; docker run --rm -v /my/images:/data selfdistill train data=/data
# With a GPU: docker run --gpus all ...
FROM python:3.13-slim

WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY src ./src
COPY recipes ./recipes
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[hf,onnx,transfer]" \
    && useradd --create-home --uid 1000 user
USER 1000
WORKDIR /home/user
ENTRYPOINT ["selfdistill"]
CMD ["--help"]
