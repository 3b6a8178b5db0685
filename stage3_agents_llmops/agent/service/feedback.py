"""Thumbs under an answer, kept with the run, so that a monitor can set them against models and versions."""

from fastapi import APIRouter
from starlette.responses import Response

from stage3_agents_llmops.agent.service import database as db
from stage3_agents_llmops.agent.service.api_error import ApiError
from stage3_agents_llmops.agent.service.bodies import FeedbackBody
from stage3_agents_llmops.agent.service.service import Customer, TheService, refusals

router = APIRouter(tags=["feedback"], responses=refusals(e401="no valid token"))


@router.post("/runs/{run_id}/feedback", status_code=204, response_class=Response, responses=refusals(
             e403="feedback comes from customers", e404="unknown, or another customer's", e409="the run is going on",
             e422="not a thumb"))  # fmt: skip
async def give_feedback(service: TheService, caller: Customer, run_id: str, body: FeedbackBody) -> Response:
    """A thumb up or down for an answer; the last one counts."""
    run = await service.run(run_id, caller)
    if not run.log.closed:
        raise ApiError(409, "the run is going on", "a thumb after its end")
    comment = service.mask(body.comment) if body.comment else None
    await service.database.call(db.add_feedback, run_id, body.score, comment)
    service.metrics.feedback.labels("up" if body.score > 0 else "down").inc()
    return Response(status_code=204)
