"""How good the judges are, by crowding, and what they let through, round by round."""

from __future__ import annotations

from matplotlib.figure import Figure

from vlm_itl.metrics.intervals import wilson
from vlm_itl.metrics.rows import Quality
from vlm_itl.report.figures import COLOURS, SOFT, canvas, nothing, plain, styles


def crowding(quality: dict[str, Quality]) -> Figure:
    """Recall and specificity by number of true instances in the image, with Wilson intervals.

    Args:
        quality: of each arm's first round, by the arm's name: there all arms judge the same proposals.
    """
    figure, panels = canvas(7.4, 5.2, 2, 1, sharex=True, sharey=True)
    look = styles(quality)
    bins = list(dict.fromkeys(b for q in quality.values() for b, c in q.by_instances.items() if c.asked))
    for axes, rate in zip(panels, ("recall", "specificity")):
        for k, (name, q) in enumerate(quality.items()):
            x, y, below, above = [], [], [], []
            for place, b in enumerate(bins):
                share = q.by_instances[b].shares[rate] if b in q.by_instances else None
                if share is None or not share.whole:
                    continue
                low, high = wilson(share)
                x.append(place + 0.8 * ((k + 0.5) / len(quality) - 0.5))
                y.append(share.part / share.whole)
                below.append(max(0, share.part / share.whole - low))
                above.append(max(0, high - share.part / share.whole))
            axes.errorbar(x, y, [below, above], ls="none", elinewidth=1, mec="white", mew=0.5, label=plain(name), **look[name])
        for place in range(1, len(bins)):
            axes.axvline(place - 0.5, color="#cfd4da", lw=0.8)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel({"recall": "recall: right images\napproved", "specificity": "specificity: wrong\nimages rejected"}[rate])
        axes.set_ylim(-0.03, 1.03)
    if not bins:
        nothing(panels[0], "no judged image has a known truth" if any(q.unknown for q in quality.values()) else "no image was judged")
    first = next(iter(quality.values()), None)
    labels = []
    for b in bins:
        c = first.by_instances.get(b) if first else None
        labels.append(f"{b}\n({c.oracle_approves if c else 0} right of {c.asked if c else 0})")
    panels[1].set_xticks(range(len(bins)), labels)
    panels[1].set_xlim(-0.5, max(0, len(bins) - 1) + 0.5)
    panels[1].set_xlabel("true instances in the image (images that the first round asks about)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def rounds(quality: dict[str, Quality]) -> Figure:
    """Images approved in each run: right ones, wrong ones, and those whose truth is not known.

    Args:
        quality: by the run's label, in the order to be drawn.
    """
    figure, axes = canvas(7.4, 0.8 + 0.27 * max(3, len(quality)))
    names = list(quality)
    right = [quality[name].true_approvals for name in names]
    wrong = [quality[name].false_approvals for name in names]
    unknown = [quality[name].approved_in_all - quality[name].approved for name in names]
    places = range(len(names))
    axes.barh(places, right, 0.7, color=COLOURS[1], label="right: nothing missing, nothing extra")
    axes.barh(places, wrong, 0.7, right, color=COLOURS[2], hatch="////", edgecolor="white", lw=0, label="wrong")
    if any(unknown):
        axes.barh(places, unknown, 0.7, [r + w for r, w in zip(right, wrong)], color="#cfd4da", label="truth not known")
    for place, r, w, u in zip(places, right, wrong, unknown):
        share = f"{r / (r + w):.0%} right" + (" of those with truth" if u else "") if r + w else "truth not known"
        words = f"{r + w + u}, {share}" if r + w + u else "none approved"
        axes.annotate(words, (r + w + u, place), xytext=(4, 0), textcoords="offset points", va="center",
                      fontsize=8, color="black" if r + w + u else SOFT)  # fmt: skip
    axes.set_yticks(places, [plain(name) for name in names])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    axes.set_xlabel("images approved")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
