"""How configs refuse what cannot work."""


class ConfigError(ValueError):
    """A setting, or a relation between settings, that cannot work."""


def require(ok: bool, where: str, value: object, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"{where} is {value!r}; it must be {allowed}")


def require_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(value > 0, f"{type(config).__name__}.{name}", value, "greater than 0")


def require_fraction(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(0 <= value <= 1, f"{type(config).__name__}.{name}", value, "between 0 and 1")


def require_groups(name: str, channels: tuple[int, ...], groups: int) -> None:
    require(
        len(channels) > 0 and groups > 0 and all(c > 0 and c % groups == 0 for c in channels),
        f"{name}.block_out_channels",
        channels,
        f"at least one entry, each a multiple of norm_num_groups {groups}",
    )


def require_divisible(where: str, value: int, divisor: int, what: str) -> None:
    require(value % divisor == 0, where, value, f"a multiple of {divisor}, {what}")
