"""What pyproject.toml cannot say: the folder recipes/ ships inside the package, as selfdistill/recipes/."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages("src"), "selfdistill.recipes"],
    package_dir={"": "src", "selfdistill.recipes": "recipes"},
    package_data={
        "selfdistill": ["py.typed"],
        "selfdistill.build": ["evidence.json"],
        "selfdistill.commands": ["step_times.json"],
        "selfdistill.data.datasets": ["digits.npz"],
        "selfdistill.recipes": ["README.md", "*/*.yaml"],
        "selfdistill.report": ["page.css", "page.js"],
    },
    include_package_data=False,
)
