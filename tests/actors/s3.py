"""An S3 server on loopback: moto's, in a thread of the tests."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer

from actors.blobs import BlobStore

BUCKET = "worldstereo"
CREDENTIALS = {"key": "test", "secret": "test"}


@contextmanager
def s3_server() -> Iterator[BlobStore]:
    """A fresh folder of a bucket: all servers of a process hold the same ones."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS["key"],
            aws_secret_access_key=CREDENTIALS["secret"],
        )
        client.create_bucket(Bucket=BUCKET)
        client.close()
        folder = secrets.token_hex(4)
        yield BlobStore(f"s3://{BUCKET}/{folder}", {"endpoint_url": url, **CREDENTIALS})
    finally:
        server.stop()
