"""image.py: in: NAME, entry point as JSON, and files PATH=SOURCE (or PATH=->TARGET for a link); out: a container image as docker-archive on standard output."""

import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import PurePosixPath


def member(path: str, mode: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path.lstrip("/"))
    info.mode, info.type = mode, kind
    return info


def layer(files: list[tuple[str, str]]) -> bytes:
    folders = {str(parent) for path, _ in files for parent in PurePosixPath(path).parents}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in sorted((folders | {"/etc"}) - {"/"}):
            tar.addfile(member(folder, 0o755, tarfile.DIRTYPE))
        tar.addfile(member("/tmp", 0o1777, tarfile.DIRTYPE))
        for path, source in files:
            if source.startswith("->"):
                info = member(path, 0o777, tarfile.SYMTYPE)
                info.linkname = source.removeprefix("->")
                tar.addfile(info)
                continue
            info = member(path, 0o755 if os.access(source, os.X_OK) else 0o644)
            info.size = os.path.getsize(source)
            with open(source, "rb") as content:
                tar.addfile(info, content)
    return buffer.getvalue()


def main() -> None:
    name, entrypoint = sys.argv[1:3]
    content = layer([tuple(argument.split("=", 1)) for argument in sys.argv[3:]])
    config = json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": json.loads(entrypoint), "Env": ["PATH=/bin:/usr/sbin"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]},
    }).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        for path, data in ((config_name, config), ("layer.tar", content), ("manifest.json", manifest)):
            info = member(path, 0o644)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


main()
