"""Evidence that was never measured, for what is said and chosen by it."""

from selfdistill.build.evidence import Entry, Interval, Situation

RUN = Situation("classification", "random", 2000, 10, 60, 1860)
WON, LOST, OPEN = Interval(2.0, 1.0, 3.0), Interval(-2.0, -3.0, -1.0), Interval(0.5, -1.0, 2.0)


def entry(arm="frskd", gain=WON, nll_gain=OPEN, **changes):
    made = Entry(
        family="2,000 cats",
        task="classification",
        start="random",
        images=2000,
        classes=10,
        epochs=60,
        steps=1860,
        arm=arm,
        price=2.0,
        longest=120,
        seeds=(10, 11, 12),
        score="top-1",
        gain=gain,
        nll_gain=nll_gain,
        nll_score="NLL",
    )
    return made._replace(**changes)
