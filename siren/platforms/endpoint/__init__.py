"""A Lambda endpoint on 127.0.0.1: the REST API that boto3 speaks, in front of AWS's own runtime client.

`python -m siren.platforms.endpoint --root DIR` serves it; `siren.platforms.endpoint.client.LocalEndpoint`
starts that as a child. Every execution environment is a process of `awslambdaric`, confined by cgroups
where they can be written. Needs Linux and the extra `local`.

From the socket inwards: `api` (routes) and `auth` (signatures) -> `functions` and `code` (what exists)
-> `invoker` (one invocation, its faults, its log) -> `pool` (concurrency, reuse) -> `environment` (one
process and its Runtime API, `runtime`) -> `confinement` and `governor` (memory, CPU, freezing).
"""
