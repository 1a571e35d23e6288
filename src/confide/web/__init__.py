"""The HTTP layer: routes, the router, requests, responses, problem documents and the API documentation."""
