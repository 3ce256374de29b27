# The map in a container: docker build -t terraloom . && docker run -p 8000:8000 -v terraloom:/cache terraloom
FROM python:3.11-slim
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 TERRALOOM_CACHE=/cache
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE LICENSE-WEIGHTS NOTICE CREDITS.md ./
COPY src src
RUN pip install --constraint constraints.txt '.[serve,openvino,text]' \
    && useradd --system --uid 10001 terraloom \
    && install -d -o terraloom /cache
USER terraloom
VOLUME /cache
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz')"]
ENTRYPOINT ["terraloom", "serve", "--host", "0.0.0.0"]
