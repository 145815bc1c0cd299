"""Stand-ins for Vertex AI, Kubeflow Pipelines, Cloud Storage and a registry of images, on 127.0.0.1.

HTTP servers to which the services' own client libraries connect: nothing of this project or of an SDK is patched. Each
serves the methods that this project uses, rejects what the service rejects, and can inject errors. The docstrings of
`bucket`, `vertex`, `kubeflow` and `registry` document what is served and what is not. Pipelines that are submitted are
executed, by kfp.local in a process of their own (`runs`, `execute`), and schedules follow a clock that can be advanced
(`clock`).

A stand-in executes what is posted to it, so each takes requests only from those who know its address, of which a secret
is a part, and none from web pages (`access`).

`python -m tests.standin` starts all of them for use from the command line; `python -m tests.standin.demo_schedule`
simulates four weeks of a weekly schedule.
"""
