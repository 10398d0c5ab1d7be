"""Setting the flows up and taking them away: `init` and `remove` over both sites and Kafka."""

from ftstream.setup.initialise import (
    Done,
    InitPlan,
    never_met,
    plan_init,
    run_init,
    script,
    supabase_migration,
)
from ftstream.setup.outside import Connectors, KafkaConnectors, KafkaTopics, Topics
from ftstream.setup.removal import RemovalPlan, plan_removal, run_removal
from ftstream.setup.survey import PreflightFailed, SetupFailed

__all__ = [
    "Connectors",
    "Done",
    "InitPlan",
    "KafkaConnectors",
    "KafkaTopics",
    "PreflightFailed",
    "RemovalPlan",
    "SetupFailed",
    "Topics",
    "never_met",
    "plan_init",
    "plan_removal",
    "run_init",
    "run_removal",
    "script",
    "supabase_migration",
]
