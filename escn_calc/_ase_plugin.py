"""Entry point of the group ``ase.plugins`` (ASE 3.29 and later): shows the calculator in ``ase info --plugins``."""

try:
    from ase._4.plugins.plugin import CalculatorPlugin
except ImportError:  # this ASE has no plugins
    __ase_plugins__ = set()
else:
    __ase_plugins__ = {
        CalculatorPlugin(
            name="escn",
            citation="Passaro and Zitnick, ICML 2023, Reducing SO(3) convolutions to SO(2), arXiv:2302.03655",
            implementation="escn_calc.calculator.ESCNCalculator",
        )
    }
