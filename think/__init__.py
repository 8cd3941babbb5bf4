"""Feature code about days of the journal; each folder imports only from those below it.

On top stand the commands `insight`, `planner` and `daily` (with `pipeline`, which has `observe` do its part), and what
others use: `tools` for agents, `search`, `utils`. Below them, from top to bottom:

- `day_runs`: what `muse daily` did, kept and shown; `planning`: agents out of wishes;
- `topics`: the topics that are files; `digests`: the built-in one, `daily`;
- `pages`: what their pages have in common; `asking`: questions to models; `searching`: the index;
- `records`: what the journal holds, read; transcripts of recorders by `observe.transcripts`.

`insights` and `prompts` are data: topics and what models are sent.
"""
