"""What waits in the delay ladder, and the way to call an event off.

In: a topology with `delay:`. Out: `Waiting` values, soonest first; a `Cancellation`; what was `Resent`.
"""

from pipeline.delayed.cancelling import Cancellation, cancel
from pipeline.delayed.looking import look
from pipeline.delayed.resending import Resent, resend
from pipeline.delayed.waiting import Waiting

__all__ = ["Cancellation", "Resent", "Waiting", "cancel", "look", "resend"]
