"""What the app depends on: `GET /answer` is good until `POST /mood/failing`, and again after `POST /mood/ok`."""

import os

from fastapi import FastAPI, Response

app = FastAPI(title="upstream")
MOODS = ("ok", "failing")


@app.get("/answer")
async def answer() -> Response:
    """Good or bad, as the mood is."""
    failing = os.environ.get("MOOD") == "failing"
    return Response("out of order" if failing else "forty-two", status_code=500 if failing else 200)


@app.post("/mood/{mood}")
async def set_mood(mood: str) -> Response:
    """For trying out."""
    if mood not in MOODS:
        return Response(status_code=404)
    os.environ["MOOD"] = mood
    return Response(status_code=204)
