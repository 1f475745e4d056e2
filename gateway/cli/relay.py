"""`lingdian relay`: ask for a relay to be switched, follow what becomes of it, and check the evidence of it.

All of it but `verify` and `direct` asks the running gateway, by the same routes and rules as billing does.
"""

from __future__ import annotations

import typer

from gateway.cli import relay_asking, relay_deciding, relay_direct, relay_evidence, relay_looking
from gateway.cli.invocation import CommandGroup

app = typer.Typer()
relay_commands = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Relays 费控继电器: trip, close, permit-close, restore, keep-power; what became of it; the proof.",
    epilog="Exit codes of what asks for a switching: 0 verified (without --wait: accepted), 3 with --wait:"
    " still open at the time limit, 4 no gateway runs, 5 the command has ended otherwise: refused, failed,"
    " cancelled, expired or superseded.",
)

for _action, _words in (
    ("trip", "Open a meter's relay 跳闸: the household goes dark."),
    ("close", "Close a meter's relay 直接合闸: power is back at once."),
    ("permit-close", "Let the customer close the relay 允许合闸, by the button on the meter."),
    ("restore", "Give power back 复电, by close or permit-close as it is right for this meter."),
    ("keep-power", "Protect a meter from every trip 保电."),
    ("release-keep-power", "End the protection 保电解除; gated like a trip."),
):
    relay_commands.command(_action)(relay_asking.asker(_action, _words))
relay_commands.command("show")(relay_looking.show_command)
relay_commands.command("list")(relay_looking.list_commands)
relay_commands.command("cancel")(relay_deciding.cancel)
relay_commands.command("approve")(relay_deciding.approve)
relay_commands.command("brake")(relay_deciding.brake)
relay_commands.command("evidence")(relay_evidence.evidence)
relay_commands.command("verify")(relay_evidence.verify)
relay_commands.command("ticket-key")(relay_direct.ticket_key)
relay_commands.command("ticket")(relay_direct.ticket)
relay_commands.command("direct")(relay_direct.direct)
relay_commands.command("upload")(relay_direct.upload)

app.add_typer(relay_commands, name="relay")
