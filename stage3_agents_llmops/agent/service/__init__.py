"""The agents behind HTTP. Reading order: sse, event_log, runs, then the routes.

| module | one sentence |
|---|---|
| sse | a frame of server-sent events, and a response that tails a run and survives slow readers |
| event_log | what a run told: numbered, kept, replayed from any cursor |
| database | threads, runs, events and feedback in SQLite |
| run, runs | a run lives in a task of its own; connections only watch |
| limits | how much is taken on before the answer is 429 |
| instances | several processes of one shop, each with a name; a dead one's runs are taken over |
| recovery | what dead processes left unfinished goes on |
| auth | tokens; another customer's thread is an unknown thread |
| threads, run_routes, operator_routes, admin_routes, feedback, pages, bodies | the routes, what they read and write |
| app, server | all of it as one FastAPI application; uvicorn, the port, the signals |
| metrics, private_logs | figures for Prometheus; logs without personal data |
| sse_client | the other side, for the load test and for programs |
"""
