"""The press: how a chapter is run, judged, recorded and published. It imports the science; nothing
of the science imports it."""

import sys

# nbformat brings jsonschema, and that a grammar of international addresses, which takes two seconds
# to build where it is installed and which no notebook needs; jsonschema does without.
sys.modules.setdefault("rfc3987_syntax", None)
