"""Square pictures of one outcome: ROC, precision against recall, calibration, net benefit, every model in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ml.common.svg import polyline, svg, tag, text
from ml.evaluation.figures import model_colour, model_name
from ml.evaluation.results import MEDBERT, ORACLE, Estimate, ModelResult

Models = Mapping[str, ModelResult]
X0, Y0, SIZE = 46, 284, 250  # the plot's lower left corner and its side
ROUND = (0.002, 0.004, 0.008, 0.02, 0.04, 0.08, 0.12, 0.2, 0.28, 0.4, 0.6, 0.8)  # tops whose quarters are round
THIRDS = (0.0015, 0.003, 0.006, 0.015, 0.03, 0.06, 0.09, 0.15, 0.3, 0.6)  # and whose thirds are


@dataclass(frozen=True)
class _Axes:
    """What the axes span, and their power: with 2 what is small is drawn larger, as on square-root paper."""

    x_top: float
    y_top: float
    y_low: float = 0.0
    power: int = 1

    def at(self, x: float, y: float) -> tuple[float, float]:
        across, up = x / self.x_top, (y - self.y_low) / (self.y_top - self.y_low)
        return X0 + SIZE * across ** (1 / self.power), Y0 - SIZE * up ** (1 / self.power)

    def ticks(self) -> list[tuple[float, float]]:
        """(x, y) of five ticks at equal distances."""
        shares = [(k / 4) ** self.power for k in range(5)]
        return [(self.x_top * share, self.y_low + (self.y_top - self.y_low) * share) for share in shares]


def _percent(value: float) -> str:
    return f"{round(100 * value, 6) + 0.0:.3g}%"


def _frame(title: str, x_name: str, y_name: str, axes: _Axes) -> list[str]:
    parts = [text(X0, 20, title, class_="strong")]
    for x, y in axes.ticks():
        left, bottom = axes.at(x, y)
        parts += [
            tag("line", x1=left, x2=left, y1=Y0 - SIZE, y2=Y0, class_="grid"),
            tag("line", x1=X0, x2=X0 + SIZE, y1=bottom, y2=bottom, class_="grid"),
            text(left, Y0 + 15, _percent(x), text_anchor="middle", class_="tick"),
            text(X0 - 5, bottom + 4, _percent(y), text_anchor="end", class_="tick"),
        ]
    parts.append(text(X0 + SIZE / 2, Y0 + 32, x_name, text_anchor="middle", class_="tick"))
    parts.append(text(0, 0, y_name, text_anchor="middle", class_="tick", transform="translate(9 159) rotate(-90)"))
    return parts


def _diagonal(axes: _Axes) -> str:
    top = min(axes.x_top, axes.y_top)
    (x1, y1), (x2, y2) = axes.at(0, 0), axes.at(top, top)
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="diagonal")


def _ordered(models: Models) -> list[tuple[str, ModelResult]]:
    """Med-BERT last, so that it is drawn on top."""
    return sorted(models.items(), key=lambda item: (item[0] == MEDBERT, item[0]))


def _line(model: str, points: Sequence[tuple[float, float]], axes: _Axes) -> str:
    dash = {"stroke_dasharray": "5 3"} if model == ORACLE else {}
    width = 2.4 if model == MEDBERT else 1.5
    drawn = [axes.at(x, y) for x, y in points]
    return polyline(drawn, stroke=model_colour(model), stroke_width=width, stroke_linejoin="round", **dash)


def _legend(rows: Sequence[tuple[str, str, str]], y: float) -> list[str]:
    """(words, value, colour) right-aligned, the first on top."""
    return [
        text(X0 + SIZE - 6, y + 14 * k, f"{words} {value}".strip(), text_anchor="end", fill=ink)
        for k, (words, value, ink) in enumerate(rows)
    ]


def _scores(drawn: Sequence[tuple[str, Estimate | None]]) -> list[tuple[str, str, str]]:
    return [(model_name(m), f"{e.value:.3f}" if e else "", model_colour(m)) for m, e in drawn]


def roc(title: str, models: Models) -> str:
    """ROC curves, or nothing where no model has one."""
    drawn = [(model, result) for model, result in _ordered(models) if result.roc]
    if not drawn:
        return ""
    axes = _Axes(1.0, 1.0)
    parts = [*_frame(title, "false positive rate", "true positive rate", axes), _diagonal(axes)]
    parts += [_line(model, result.roc, axes) for model, result in drawn]
    rows = _scores([(model, result.auroc) for model, result in reversed(drawn)])
    return svg(310, 324, f"ROC curves, {title}", *parts, *_legend(rows, 276 - 14 * (len(rows) - 1)))


def precision_recall(title: str, models: Models) -> str:
    """Precision against recall with the prevalence as a line, or nothing where no model has a curve."""
    drawn = [(model, result) for model, result in _ordered(models) if result.precision_recall]
    if not drawn:
        return ""
    top = _round_up(max(p for _, result in drawn for _, p in result.precision_recall))
    axes, prevalence = _Axes(1.0, top), drawn[-1][1].events / drawn[-1][1].n
    (x1, y), (x2, _) = axes.at(0, prevalence), axes.at(1, prevalence)
    parts = [*_frame(title, "recall (sensitivity)", "precision (predictive value)", axes)]
    parts.append(tag("line", x1=x1, x2=x2, y1=y, y2=y, class_="diagonal"))
    parts += [_line(model, result.precision_recall, axes) for model, result in drawn]
    rows = _scores([(model, result.auprc) for model, result in reversed(drawn)])
    return svg(310, 324, f"Precision and recall, {title}", *parts, *_legend(rows, 50))


def calibration(title: str, models: Models) -> str:
    """Observed share against mean predicted risk in groups of equal size, Med-BERT's with intervals; or nothing."""
    drawn = [(model, result) for model, result in _ordered(models) if result.calibration]
    if not drawn:
        return ""
    bands = [high for _, high in models[MEDBERT].calibration_bands] if MEDBERT in models else []
    top = _round_up(max([max(x, y) for _, result in drawn for x, y, _ in result.calibration] + bands))
    axes = _Axes(top, top, power=2)
    parts = [*_frame(title, "predicted risk (square-root scale)", "observed share", axes), _diagonal(axes)]
    for model, result in drawn:
        ink, ours = model_colour(model), model == MEDBERT
        if ours:
            parts += _bands(result, axes, ink)
        points = [(x, y) for x, y, _ in result.calibration]
        dots = [tag("circle", cx=x, cy=y, r=3.2 if ours else 2.0, fill=ink) for x, y in (axes.at(*p) for p in points)]
        parts.append(tag("g", "".join([_line(model, points, axes), *dots]), opacity=1.0 if ours else 0.55))
    return svg(310, 324, f"Calibration, {title}", *parts)


def _bands(result: ModelResult, axes: _Axes, ink: str) -> list[str]:
    parts = []
    for (x, _, _), (low, high) in zip(result.calibration, result.calibration_bands, strict=False):
        (left, bottom), (_, top) = axes.at(x, low), axes.at(x, high)
        line = {"x1": left, "x2": left, "y1": bottom, "y2": top}
        parts.append(tag("line", **line, stroke=ink, stroke_width=5, stroke_opacity=0.22, stroke_linecap="round"))
    return parts


def net_benefit(title: str, models: Models) -> str:
    """Decision curves from threshold 0 to where no model helps any more, with all and nobody treated; or nothing."""
    curves = {
        model: [(point.threshold, point.value.value) for point in result.net_benefit if point.value is not None]
        for model, result in _ordered(models)
    }
    curves = {model: points for model, points in curves.items() if points}
    if not curves:
        return ""
    everybody = [(p.threshold, p.treat_all) for p in next(iter(models.values())).net_benefit if p.treat_all is not None]
    best = max(y for points in curves.values() for _, y in points)
    useful = [x for model, points in curves.items() for x, y in points if model != ORACLE and y > 0.02 * best]
    last = max([*useful, sorted(x for x, _ in everybody)[2]])
    y_top = _round_up(max(best, 1e-4), THIRDS)
    axes = _Axes(_round_up(last), y_top, -y_top / 3)
    (x1, y), (x2, _) = axes.at(0, 0), axes.at(axes.x_top, 0)
    parts = [*_frame(title, "risk from which one would act", "net benefit per patient", axes)]
    parts.append(tag("line", x1=x1, x2=x2, y1=y, y2=y, class_="reference"))
    parts.append(_inside(everybody, axes, stroke="#3b4656", stroke_width=1.3, stroke_dasharray="2 3"))
    for model, points in curves.items():
        dash = {"stroke_dasharray": "5 3"} if model == ORACLE else {}
        width = 2.4 if model == MEDBERT else 1.5
        parts.append(_inside(points, axes, stroke=model_colour(model), stroke_width=width, **dash))
    rows = [("dotted: everybody is treated", "", "#3b4656"), ("grey: nobody is", "", "#7b8694")]
    return svg(310, 324, f"Net benefit, {title}", *parts, *_legend(rows, 48))


def _inside(points: Sequence[tuple[float, float | None]], axes: _Axes, **look: object) -> str:
    """A curve cut where it leaves the plot."""
    kept: list[tuple[float, float]] = []
    for x, y in points:
        if y is None or x > axes.x_top:
            break
        if y < axes.y_low:
            if kept:
                (x0, y0) = kept[-1]
                kept.append((x0 + (x - x0) * (y0 - axes.y_low) / (y0 - y), axes.y_low))
            break
        kept.append((x, y))
    return polyline([axes.at(x, y) for x, y in kept], **look)


def _round_up(value: float, tops: Sequence[float] = ROUND) -> float:
    """The next round top."""
    return next((top for top in tops if value <= top), 1.0)
