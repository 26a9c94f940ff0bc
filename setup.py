"""Build file of slidr: `pip install -e .` for reading and scoring, `.[train]` for training, `.[train,test]` for developing."""

from pathlib import Path

from setuptools import find_packages, setup

# Petastorm 0.13.1 runs only with pyarrow 14.0.2, which needs numpy < 2 and pandas < 3; that fixes pyspark 4.0 and delta-spark 4.4.0.
BASE = [
    "pyspark>=4.0.1,<4.1",
    "delta-spark==4.4.0",
    "deltalake>=1.6,<2",  # tables without a JVM
    "duckdb>=1.4,<2",  # 2.0 needs a newer pyarrow for its filters
    "pyarrow==14.0.2",
    "numpy>=1.26,<2",
    "pandas>=2.2,<3",
    "mlflow>=3.11,<4",
    "pydantic>=2.8,<3",
    "typer>=0.15,<1",
    "rich>=13.7",
    "jinja2>=3.1",
    "PyYAML>=6",
    "matplotlib>=3.8,<4",
    "scipy>=1.11,<2",
    "safetensors>=0.5,<1",
    "tzdata",
]
TRAIN = ["petastorm==0.13.1", "torch>=2.4,<3", "cvxpy>=1.6,<1.8", "setuptools<70"]
TEST = [
    "chispa>=0.10",
    "moto[s3]>=5,<6",  # a local S3 server, with the two packages that it serves by
    "flask>=3",
    "flask-cors>=5",
    "pytest>=8,<10",
    "pytest-xdist>=3.6,<4",
    "hypothesis>=6.100",
    "polars>=1.8",
    "nbclient>=0.10",
    "nbformat>=5.10",
    "ipykernel>=6.29",
    "ruff==0.17.6",
    "mypy>=1.15,<3",
    "types-PyYAML",
]
BENCH = ["polars>=1.8", "psutil>=5.9", "dbl-tempo==0.1.30", "ipython>=8"]  # tests/bench beside other engines

setup(
    name="slidr",
    version="0.1.0",
    description="Offline scoring and replay of robotic ad clicks on Spark",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=[*find_packages(include=["slidr", "slidr.*"]), "slidr.conf", "slidr.conf.sources", "slidr.jobs"],
    package_dir={"slidr": "slidr", "slidr.conf": "conf", "slidr.jobs": "jobs"},
    package_data={
        "slidr.conf": ["*.yaml", "*.sh"],
        "slidr.conf.sources": ["*.yaml"],
        "slidr": ["**/*.html.j2", "**/*.json", "ready/*.sql", "simulator/LICENSE*"],
    },
    install_requires=BASE,
    extras_require={"train": TRAIN, "test": TEST, "bench": BENCH},
    entry_points={"console_scripts": ["slidr = slidr.cli:main"]},
)
