"""The decode loop under four kinds of control: resident, graph, C launch list and Python."""
