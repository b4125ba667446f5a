// Python's strftime in the C locale, with the letters and flags of glibc.

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
const MONTHS = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
]

const DAY = 86400000

/** The number of a day in its year, from 1. */
function dayOfYear(date: Date): number {
  const [year, month, day] = [date.getFullYear(), date.getMonth(), date.getDate()]
  return Math.round((Date.UTC(year, month, day) - Date.UTC(year, 0, 1)) / DAY) + 1
}

/** Year and week after ISO 8601. */
function isoWeek(date: Date): [year: number, week: number] {
  const thursday = new Date(Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()))
  thursday.setUTCDate(thursday.getUTCDate() + 4 - (thursday.getUTCDay() || 7))
  const year = thursday.getUTCFullYear()
  return [year, Math.floor((thursday.getTime() - Date.UTC(year, 0, 1)) / DAY / 7) + 1]
}

/** [value, width, what fills it] */
type Number_ = readonly [value: number, width: number, fill: '0' | ' ']

function number(letter: string, date: Date): Number_ | null {
  const hours = date.getHours()
  const [weekday, year] = [date.getDay(), date.getFullYear()]
  switch (letter) {
    case 'd':
      return [date.getDate(), 2, '0']
    case 'e':
      return [date.getDate(), 2, ' ']
    case 'm':
      return [date.getMonth() + 1, 2, '0']
    case 'y':
      return [year % 100, 2, '0']
    case 'Y':
      return [year, 1, '0']
    case 'C':
      return [Math.floor(year / 100), 2, '0']
    case 'H':
      return [hours, 2, '0']
    case 'k':
      return [hours, 2, ' ']
    case 'I':
      return [hours % 12 || 12, 2, '0']
    case 'l':
      return [hours % 12 || 12, 2, ' ']
    case 'M':
      return [date.getMinutes(), 2, '0']
    case 'S':
      return [date.getSeconds(), 2, '0']
    case 'j':
      return [dayOfYear(date), 3, '0']
    case 'U':
      return [Math.floor((dayOfYear(date) + 6 - weekday) / 7), 2, '0']
    case 'W':
      return [Math.floor((dayOfYear(date) + 6 - ((weekday + 6) % 7)) / 7), 2, '0']
    case 'V':
      return [isoWeek(date)[1], 2, '0']
    case 'G':
      return [isoWeek(date)[0], 1, '0']
    case 'g':
      return [isoWeek(date)[0] % 100, 2, '0']
    case 'u':
      return [weekday || 7, 1, '0']
    case 'w':
      return [weekday, 1, '0']
    case 's':
      return [Math.floor(date.getTime() / 1000), 1, '0']
  }
  return null
}

const COMPOSED: Readonly<Record<string, string>> = {
  c: '%a %b %e %H:%M:%S %Y',
  D: '%m/%d/%y',
  F: '%Y-%m-%d',
  R: '%H:%M',
  r: '%I:%M:%S %p',
  T: '%H:%M:%S',
  X: '%H:%M:%S',
  x: '%m/%d/%y',
}

function words(letter: string, date: Date): string | null {
  switch (letter) {
    case 'a':
      return DAYS[date.getDay()].slice(0, 3)
    case 'A':
      return DAYS[date.getDay()]
    case 'b':
    case 'h':
      return MONTHS[date.getMonth()].slice(0, 3)
    case 'B':
      return MONTHS[date.getMonth()]
    case 'p':
      return date.getHours() < 12 ? 'AM' : 'PM'
    case 'P':
      return date.getHours() < 12 ? 'am' : 'pm'
    case 'f':
      return `${String(date.getMilliseconds()).padStart(3, '0')}000`
    case 'n':
      return '\n'
    case 't':
      return '\t'
    case 'z':
    case 'Z':
      return '' // datetime.now() knows no zone
    case '%':
      return '%'
  }
  return null
}

export function strftime(format: string, date: Date): string {
  return format.replace(/%([-_0^#]?)([a-zA-Z%])/g, (whole, flag: string, letter: string) => {
    const found = number(letter, date)
    if (found !== null) {
      const [value, width, fill] = found
      if (flag === '-') return String(value)
      return String(value).padStart(width, flag === '_' ? ' ' : flag === '0' ? '0' : fill)
    }
    const text = words(letter, date) ?? (letter in COMPOSED ? strftime(COMPOSED[letter], date) : null)
    if (text === null) return whole
    if (flag === '#') return letter === 'p' ? text.toLowerCase() : text.toUpperCase()
    return flag === '^' ? text.toUpperCase() : text
  })
}
