#!/usr/bin/env python3
"""Judges stagecast's models beside scikit-learn's on the same point-in-time tasks.

For each --until date stagecast trains on what lies before it. Then the features of every customer at every cut,
earlier ones to learn from and later ones to be judged on, come out of `stagecast replay --features-at`, so that all
three models see the same rows; outcomes are counted here, from the events themselves. scikit-learn's logistic
regression gets log1p, standardisation and an indicator for "never", and its C from the later cuts of the training
period; its boosting gets the plain values, and its depth from the same later cuts. Choices look at no more than 30,000
rows on each side, as those of `train` do; what is judged was fitted to all. With --label cancelled, who has cancelled
and not come back is nobody's example, as in `train`.

Printed for each date: ROC-AUC (the mean over cuts, weighted by examples), Brier score and log loss over all
examples, beside the base rate, recency alone and p_no_order. With --draws also how far stagecast's ROC-AUC and Brier
score are from those of scikit-learn's, with 95 % intervals: customers, all their examples together, are drawn again.

    python3 -m venv v && v/bin/pip install -r benches/models/requirements.txt
    v/bin/python benches/models/compare.py --stagecast target/release/stagecast --input DIR \\
        --horizon 90d --active-within 180d --until 1997-10-01 1997-12-01
"""

import argparse
import gzip
import json
import pathlib
import subprocess
import tempfile
from datetime import datetime, timedelta, timezone

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

KINDS = ["clickstream", "purchase", "support", "profile"]
CUTS_MOST = 24  # as `train` chooses them
CHOOSING_ROWS_MOST = 30_000  # likewise
JUST = timedelta(milliseconds=1)  # what happens at the cut itself lies ahead of it


def main():
    """Compares at each date and prints one table."""
    asked = arguments()
    events = read(asked.input)
    print(f"{'until':<12}{'model':<22}{'AUC':>8}{'Brier':>9}{'log loss':>10}{'mean p':>9}{'churned':>9}{'examples':>10}")
    for until in asked.until:
        for name, figures in compare(asked, events, until):
            print(f"{until.date()!s:<12}{name:<22}{figures}", flush=True)


def arguments():
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stagecast", required=True, type=pathlib.Path)
    parser.add_argument("--input", required=True, type=pathlib.Path)
    parser.add_argument("--label", default="no_order", choices=["no_order", "no_event", "cancelled"])
    parser.add_argument("--horizon", default="30d", type=days)
    parser.add_argument("--active-within", default="90d", type=days)
    parser.add_argument("--until", required=True, nargs="+", type=lambda day: datetime.fromisoformat(day).replace(tzinfo=timezone.utc))
    parser.add_argument("--draws", default=0, type=int)
    return parser.parse_args()


def days(span):
    """A span such as 90d."""
    return timedelta(days=int(span.removesuffix("d")))


def read(folder):
    """Every event once: (kind, type, customer, instant)."""
    events, seen = [], set()
    for kind in KINDS:
        for path in sorted(folder.glob(f"{kind}.ndjson*")):
            with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as lines:
                for line in lines:
                    event = json.loads(line)
                    if event.get("event_id") not in seen or event.get("event_id") is None:
                        seen.add(event.get("event_id"))
                        events.append((kind, event["type"], event["customer_id"], datetime.fromisoformat(event["ts"])))
    return events


def compare(asked, events, until):
    """Names and written figures of every model that is trained until a date and judged on what follows."""
    last = max(at for *_, at in events)
    with tempfile.TemporaryDirectory() as work:
        model = pathlib.Path(work, "model.json")
        task = ["--label", asked.label, "--horizon", f"{asked.horizon.days}d", "--active-within", f"{asked.active_within.days}d"]
        run(asked, "train", *task, "--until", text(until), "--output", model)
        training = json.loads(model.read_text())["training"]
        learned = spread(instant(training["first_cut"]), instant(training["last_cut"]), asked.horizon)
        judged = spread(until, last - asked.horizon, asked.horizon)
        run(asked, "replay", "--model", model, "--output", pathlib.Path(work, "out"), "--features-at", ",".join(text(cut - JUST) for cut in learned + judged))
        rows = table(asked, events, pathlib.Path(work, "out", "features.ndjson"))
    early, late = (np.isin(rows["at"], [text(cut) for cut in cuts]) for cuts in (learned, judged))
    plain, churned, at = rows["plain"], rows["churned"], rows["at"]
    # The later part of the training period chooses, as it does in `train`.
    middle = text(learned[len(learned) * 2 // 3])
    fit = thinned(early & np.isin(at, [text(cut) for cut in learned if cut + asked.horizon <= instant(middle)]))
    choose = thinned(early & (at >= middle))

    def best(candidates, x):
        """The candidate with the least log loss on the later training cuts, fitted on all of them."""
        tried = [log_loss(churned[choose], c.fit(x[fit], churned[fit]).predict_proba(x[choose])[:, 1], labels=[0, 1]) for c in candidates]
        return candidates[int(np.argmin(tried))].fit(x[early], churned[early]).predict_proba(x[late])[:, 1]

    linear = [make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)) for c in (0.001, 0.01, 0.1, 1, 10)]
    boosted = [HistGradientBoostingClassifier(max_iter=n, learning_rate=0.05, max_leaf_nodes=leaves, random_state=7) for n in (60, 150) for leaves in (7, 31)]
    names = rows["names"]
    told = [column for column in range(len(names)) if len(np.unique(plain[fit, column])) > 1]
    base = np.full(late.sum(), churned[early].mean())
    models = {
        "base rate": base,
        "recency alone": best([make_pipeline(StandardScaler(), LogisticRegression())], logged(plain[:, [names.index("days_since_event")]])),
        "p_no_order": plain[late, names.index("p_no_order")],
        "stagecast": rows["p_churn"][late],
        "sklearn logistic": best(linear, logged(plain[:, told])),
        "sklearn boosting": best(boosted, plain[:, told]),
    }
    for name, p in models.items():
        if not np.isnan(p).any():  # who never ordered has no p_no_order
            yield name, "{:8.4f}{:9.4f}{:10.4f}{:9.4f}{:9.4f}{:10d}".format(*figures(churned[late], p, at[late]))
    if asked.draws:
        for other in ("sklearn logistic", "sklearn boosting"):
            for what, measured in differences(churned[late], models["stagecast"], models[other], at[late], rows["customer"][late], asked.draws):
                yield f"stagecast less {other}, {what}", "{:+9.4f} [{:+.4f}, {:+.4f}]".format(*measured)


def differences(churned, ours, theirs, at, customer, draws):
    """ROC-AUC and Brier score of one model less another's, each with the bounds of 95 % of the draws."""
    customers, who = np.unique(customer, return_inverse=True)
    rng = np.random.default_rng(7)

    def measured(weight):
        return [auc(churned, ours, at, weight) - auc(churned, theirs, at, weight), np.average((ours - churned) ** 2 - (theirs - churned) ** 2, weights=weight)]

    times = (np.bincount(rng.integers(len(customers), size=len(customers)), minlength=len(customers)) for _ in range(draws))
    drawn = np.array([measured(drawn[who]) for drawn in times])
    bounds = np.quantile(drawn, [0.025, 0.975], axis=0)
    for column, (what, whole) in enumerate(zip(("ROC-AUC", "Brier"), measured(np.ones(len(at))))):
        yield what, (whole, *bounds[:, column])


def run(asked, command, *rest):
    """Runs a command of stagecast over the input."""
    subprocess.run([asked.stagecast, command, "--input", asked.input, "-qq", *rest], check=True, stdout=subprocess.DEVNULL)


def spread(first, last, horizon):
    """Instants half a horizon apart, fewer where that would be more than `train` takes."""
    steps = max(1, min(CUTS_MOST - 1, (last - first) // (horizon / 2)))
    whole = [(first + (last - first) * i / steps).replace(minute=0, second=0, microsecond=0) for i in range(steps + 1)]
    return sorted(set(whole))


def table(asked, events, path):
    """The rows of all cuts: features, scores and outcomes of the customers that were active before each."""
    outcome, subscription = {}, {}
    for kind, type_, customer, at in events:
        if type_ in ("subscription_started", "subscription_cancelled"):
            subscription.setdefault(customer, []).append((at, type_ == "subscription_cancelled"))
        counts = {"no_order": type_ == "order_completed", "no_event": kind != "profile", "cancelled": type_ == "subscription_cancelled"}
        if counts[asked.label]:
            outcome.setdefault(customer, []).append(at)
    names, plain, churned, at, scores, customers = None, [], [], [], [], []
    with open(path) as lines:
        for line in lines:
            row = json.loads(line)
            quiet = row["features"]["days_since_event"]
            if quiet is None or quiet > asked.active_within.days:
                continue
            cut = instant(row["ts"]) + JUST
            before = [change for change in subscription.get(row["customer_id"], []) if change[0] < cut]
            if asked.label == "cancelled" and before and max(before)[1]:
                continue
            happened = any(cut <= seen < cut + asked.horizon for seen in outcome.get(row["customer_id"], []))
            names = names or list(row["features"])
            plain.append([np.nan if row["features"][name] is None else row["features"][name] for name in names])
            churned.append(happened == (asked.label == "cancelled"))
            at.append(text(cut))
            scores.append(row["p_churn"])
            customers.append(row["customer_id"])
    return {"customer": np.array(customers), "names": names, "plain": np.array(plain, float), "churned": np.array(churned, int), "at": np.array(at), "p_churn": np.array(scores, float)}


def thinned(rows):
    """Every so-manieth of the rows."""
    numbers = np.flatnonzero(rows)
    return numbers[:: max(1, -(-len(numbers) // CHOOSING_ROWS_MOST))]


def logged(plain):
    """log1p by sign, and an indicator beside each column that can be missing."""
    never = np.isnan(plain)
    filled = np.where(never, 0, plain)
    return np.hstack([np.sign(filled) * np.log1p(np.abs(filled)), never[:, never.any(axis=0)]])


def figures(churned, p, at):
    """AUC by cut, Brier, log loss, means and count."""
    return auc(churned, p, at, np.ones(len(p))), brier_score_loss(churned, p), log_loss(churned, p, labels=[0, 1]), p.mean(), churned.mean(), len(p)


def auc(churned, p, at, weight):
    """The mean over cuts of the area under the ROC curve, by weight of the examples."""
    told = [cut for cut in (at == each for each in np.unique(at)) if len(set(churned[cut & (weight > 0)])) == 2]
    areas = [roc_auc_score(churned[cut], p[cut], sample_weight=weight[cut]) for cut in told]
    return np.average(areas, weights=[weight[cut].sum() for cut in told])


def text(at):
    """An instant as the commands take it."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def instant(written):
    """An instant as the commands write it."""
    return datetime.fromisoformat(written)


if __name__ == "__main__":
    main()
