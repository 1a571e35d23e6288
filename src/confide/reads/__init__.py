"""Reading current configs, and access statistics.

A `GET /config` takes these steps:

1. `fast_path` receives the bytes of a request head, and `head_cache` finds the request if the head repeats. A new head
   is parsed by `request`. The router handles requests that are not plain (`routes`).
2. `reader` checks token, grant and version in the caches. If all are fresh, it returns the prepared bytes (`response`).
3. Otherwise `reader` queries the database, and `cache` keeps the result for all renderings that clients request.
4. If the database does not respond, `reader` serves a stale entry of the cache for a limited time.

`statistics` adds up which token read which config.
"""
