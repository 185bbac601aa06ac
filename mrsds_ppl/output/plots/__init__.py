"""Figures, one function each: every function takes axes, or makes them, and returns them."""

from mrsds_ppl.output.plots.activity import plot_activity, plot_neurons
from mrsds_ppl.output.plots.averages import Average, average_over_trials, plot_averages
from mrsds_ppl.output.plots.flow import plot_vector_field
from mrsds_ppl.output.plots.messages import plot_communication, plot_message_norms
from mrsds_ppl.output.plots.scores import plot_neuron_scores, plot_training
from mrsds_ppl.output.plots.style import REGION_COLOURS, STATE_COLOURS, region_colour, state_colour
from mrsds_ppl.output.plots.trials import plot_states, plot_trial

__all__ = [
    "REGION_COLOURS",
    "STATE_COLOURS",
    "Average",
    "average_over_trials",
    "plot_activity",
    "plot_averages",
    "plot_communication",
    "plot_message_norms",
    "plot_neuron_scores",
    "plot_neurons",
    "plot_states",
    "plot_training",
    "plot_trial",
    "plot_vector_field",
    "region_colour",
    "state_colour",
]
