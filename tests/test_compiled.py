"""What benchmarks read of compiled programs: operations, how often they run, what they write."""

import jax
import jax.numpy as jnp

from benchmarks.compiled import operations


def _of(function, *shapes):
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return operations(jax.jit(function).lower(*given).compile().as_text())


def test_loops_are_multiplied_out():
    found = _of(lambda x: jax.lax.fori_loop(0, 7, lambda _, y: y @ y, x), (40, 40))
    products = [o for o in found if "dot_general" in o.source]
    assert sum(o.times for o in products if o.bytes >= 40 * 40 * 4) == 7


def test_what_only_puts_values_in_another_order():
    def moved(function):
        return sum(o.bytes for o in _of(function, (24, 56, 3)) if o.moves)

    assert moved(lambda x: x.transpose(1, 2, 0)) == 24 * 56 * 3 * 4
    assert moved(lambda x: jnp.sin(x.transpose(1, 2, 0))) == 0


def test_arrays_of_all_kinds():
    text = """
HloModule m
%body (p: (bf16[2,3])) -> (bf16[2,3]) {
  %p = (bf16[2,3]{1,0}) parameter(0)
  %c = (bf16[2,3]{1,0}, u8[0]{0}) custom-call(%p), dim_labels=b01f_o01i->b01f, custom_call_target="a$b", metadata={op_name="there"}
}
ENTRY %main (p: f32[]) -> f32[] {
  %s = pred[5]{0} compare(%p, %p)
  %w = (bf16[2,3]{1,0}) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"4"}}
  ROOT %d = f8e4m3fn[7]{0} all-reduce-done(%s)
}
"""  # noqa: E501
    compare, call = operations(text)
    assert (compare.kind, compare.bytes, compare.times) == ("compare", 5, 1)
    assert (call.kind, call.bytes, call.times, call.source) == ("a$b", 12, 4, "there")
    assert call.layout == "b01f_o01i->b01f"
