"""Many fits side by side on Dask: cells, their files, cluster, results and page. Imports fit and what is below it."""
