#!/usr/bin/env bash
# Protego 0.7.0: a line that it does not know, between two User-agent lines, ends the group.
#
# RFC 9309, section 2.2.4, says that other records must not interfere with the parsing of the defined
# ones, so that below all three agents should share the rule. With Protego only the last one has it;
# the agents above the unknown line have no rule at all, and everything is open to them. The same file
# without that line is read as expected. Sites whose host writes "Content-Signal" into robots.txt have
# such lines. The output seen stands at the end; the script fails if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet protego==0.7.0
"$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
from protego import Protego

AGENTS = ("first", "second", "third")
for between in ("", "Content-Signal: search=yes\n"):
    text = f"User-agent: first\n{between}User-agent: second\nUser-agent: third\nDisallow: /\n"
    rules = Protego.parse(text)
    allowed = [agent for agent in AGENTS if rules.can_fetch("https://example.org/page", agent)]
    print(f"{'with' if between else 'without'} the unknown line, allowed: {allowed}")
PYTHON
diff "$folder/seen" - <<'SEEN'
without the unknown line, allowed: []
with the unknown line, allowed: ['first']
SEEN
