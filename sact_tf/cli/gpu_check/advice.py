"""What to choose on the device, from what was measured."""

import math
from collections.abc import Sequence

from sact_tf.cli.gpu_check.settings import Result


def choose(results: Sequence[Result]) -> str:
    """One sentence: what a user of the measured device should choose."""
    parts = [
        part
        for part in (
            _wrong(results),
            _inference(results),
            _act(results),
            _precision(results),
        )
        if part
    ]
    if not parts:
        return "Choose: nothing was measured that would tell."
    return f"Choose: {'; '.join(parts)}."


def _wrong(results):
    """Executions that do not give the authors' numbers."""
    wrong = [
        result.what
        for result in results
        if result.section == "golden" and not result.details["equal"]
    ]
    return f"not {', '.join(wrong)}: other numbers than the authors'" if wrong else ""


def _of_first_group(results):
    """Milliseconds of the networks of what was measured first, and the batch."""
    networks = [result.details for result in results if "network" in result.details]
    group = [(details["size"], details["batch"]) for details in networks]
    times = {
        result.details["network"]: result.value
        for result in results
        if "network" in result.details
        and (result.details["size"], result.details["batch"]) == group[0]
    }
    return times, group[0][1] if group else 0


def _inference(results):
    times, batch = _of_first_group(results)
    ways = {
        "SACT auto": 'execution="auto"',
        "SACT auto, bfloat16": 'execution="auto" with mixed_bfloat16',
        "SACT dense, XLA": 'execution="dense" with jit_compile=True',
    }
    measured = {name: times[name] for name in ways if name in times}
    if not measured:
        return ""
    best = min(measured, key=measured.get)
    # The default, unless something is clearly faster.
    if measured.get("SACT auto", math.inf) < 1.03 * measured[best]:
        best = "SACT auto"
    text = f"for SACT at inference {ways[best]} ({measured[best]:.1f} ms for {batch} "
    plain = [times[name] for name in ("plain", "plain, XLA") if name in times]
    if plain:
        share = measured[best] / min(plain)
        return f"{text}images, {share:.2f} times the fastest plain float32 network)"
    return f"{text}images)"


def _act(results):
    times, _ = _of_first_group(results)
    if not {"plain", "ACT positions"} <= times.keys():
        return ""
    share = times["ACT positions"] / times["plain"]
    if share < 0.97:
        return (
            'to save time, adaptivity="act" with execution="positions" '
            f"({share:.2f} times the plain network)"
        )
    return f"ACT saves no time ({share:.2f} times the plain network)"


def _precision(results):
    times = {
        result.what: result.value for result in results if result.section == "training"
    }
    ratios = [
        times[name] / times[name.replace("float32", "mixed_bfloat16")]
        for name in times
        if name.endswith(", float32")
        and name.replace("float32", "mixed_bfloat16") in times
    ]
    if not ratios:
        return ""
    worst = min(ratios)
    if worst > 1.03:
        return f"for training mixed_bfloat16 (at least {worst:.2f} times as fast)"
    return f"for training float32 (mixed_bfloat16 is {worst:.2f} times as fast)"
