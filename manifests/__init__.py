"""Every schema that crosses a process or a language boundary.

Nothing here does work: the models say what a file or a message means, and the
other rooms read and write them.  JSON Schema and TypeScript are generated from
these models by ``python -m manifests.generate`` and checked for drift in CI.
"""
