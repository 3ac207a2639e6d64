# mypy: ignore-errors
"""Creates and reads workbooks for tasks on the Excel server, with its openpyxl: run by the Python of its venv.

python workbook.py make FILE < '{"Sheet": [[…], …]}'
python workbook.py read FILE > '{"Sheet": [[…], …]}'
"""

import json
import sys

import openpyxl


def main() -> None:
    action, file = sys.argv[1:]
    if action == "make":
        book = openpyxl.Workbook()
        book.remove(book.active)
        for name, rows in json.load(sys.stdin).items():
            sheet = book.create_sheet(name)
            for row in rows:
                sheet.append(row)
        book.save(file)
    else:
        book = openpyxl.load_workbook(file)
        json.dump({sheet.title: [list(row) for row in sheet.values] for sheet in book}, sys.stdout, default=str)


main()
