"""What the labs share, and nothing else. Reading order: errors, files, cli, runs, then the small ones.

| module | one sentence |
|---|---|
| errors | `error: ... / try: ...` and exit code 2 instead of a traceback |
| files | a file appears whole or not at all |
| cli | a frozen dataclass with presets becomes a command line |
| runs | every run leaves `runs/<stage>/<lab>/<run-id>/report.json` |
| device | which device, which dtype |
| progress, plots, timing | a bar with the time left; one plot style; seconds and peak memory |
| assets | data and models that install like packages |
| summary | the table at the end of a stage |

`labkit` imports no lab.
"""
