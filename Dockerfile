FROM python:3.12-slim AS build
COPY . /source
RUN PYTHON=python /source/docker/build.sh /opt/sizewright

FROM python:3.12-slim
COPY --from=build /opt/sizewright /opt/sizewright
ENV PATH=/opt/sizewright/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 50151
HEALTHCHECK CMD ["sizewright", "health", "--server", "localhost:50151"]
# Serves loopback alone until it is given TLS and tokens, as anywhere:
#   docker run IMAGE serve --listen 0.0.0.0:50151 --tls-cert … --tls-key … --token-file …
ENTRYPOINT ["sizewright"]
CMD ["serve"]
