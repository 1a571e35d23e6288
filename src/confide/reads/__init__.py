"""Reading current configs, and access statistics.

A `GET /config` takes these steps:

1. `fast_path` receives the bytes of a request head, and `head_cache` finds the request if the head repeats. A new head
   is parsed by `plain_read`. Under another ASGI server, `server/application` takes the place of `fast_path`. The router
   passes requests that are not plain to `routes`.
2. `reader` checks token, grant and version in the caches. If all are fresh, it returns the prepared bytes (`response`).
3. Otherwise `server/application` opens a request span, and `reader` queries the database. `cache` keeps one prepared
   response per rendering, each from its own query.
4. If the database does not respond, `reader` serves a stale entry of the cache for a limited time.

`statistics` adds up which token read which config.
"""
