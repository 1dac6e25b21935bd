"""Download the sample corpus and public benchmarks, which data/sample.lock pins by name, version and SHA-256.

Used by: the stage `fetch`, the only one that opens a socket.
"""
