#!/usr/bin/env bash
# ipywidgets 7.7.1 (Colab's): FileUpload(multiple=True).value holds one of several files that have one name.
#
# There `value` is a dict from name to file, so of two photos that are both called image.jpg the last stays
# and nothing says so. Both came: `metadata` and `data`, which the browser fills, are lists and have all of them in the order in which they
# were chosen. ipywidgets 8.1.8 has a tuple as `value`, and all files in it. Whoever serves both versions
# reads the two lists where `value` is a dict. The output seen stands at the end; the script fails if it
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > chosen.py <<'PYTHON'
import datetime

import ipywidgets

upload = ipywidgets.FileUpload(multiple=True)
photos = [("image.jpg", b"first"), ("image.jpg", b"second")]
if isinstance(upload.value, dict):  # what its part in the browser sends when two files are chosen
    upload.metadata = [{"name": name, "size": len(content)} for name, content in photos]
    upload.data = [content for _, content in photos]
    upload._counter = len(photos)
    files, lists = list(upload.value.values()), list(zip(upload.metadata, upload.data))
    print(ipywidgets.__version__, "value:", [bytes(file["content"]) for file in files])
    print(ipywidgets.__version__, "metadata and data:", [(told["name"], data) for told, data in lists])
else:
    now = datetime.datetime.now(datetime.timezone.utc)
    told = {"type": "image/jpeg", "last_modified": now}
    upload.value = tuple(
        told | {"name": name, "size": len(content), "content": memoryview(content)}
        for name, content in photos
    )
    print(ipywidgets.__version__, "value:", [bytes(file["content"]) for file in upload.value])
PYTHON
for version in 7.7.1 8.1.8; do
    python3 -m venv "$version"
    "$version/bin/pip" install --quiet "ipywidgets==$version" ipykernel==6.29.5
    "$version/bin/python" -W ignore chosen.py
done | tee seen
diff seen - <<'SEEN'
7.7.1 value: [b'second']
7.7.1 metadata and data: [('image.jpg', b'first'), ('image.jpg', b'second')]
8.1.8 value: [b'first', b'second']
SEEN
