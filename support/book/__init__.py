"""The press: how a chapter is run, judged, recorded and published. It imports the science; nothing
of the science imports it."""
