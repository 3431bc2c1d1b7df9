# shellcheck shell=bash disable=SC2154 # port
# nginx, installed: master as root, workers as another user, who own what they write.

cat >/etc/nginx/sites-available/default <<END
server {
    listen 127.0.0.1:$port;
    root /var/www/html;
    location /kept { dav_methods PUT DELETE MKCOL; root /srv; }
}
END

# Status line and body of the answer. Usage: request METHOD PATH [BODY]
request() {
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf '%s %s HTTP/1.0\r\nHost: localhost\r\nContent-Length: %s\r\n\r\n%s' "$1" "$2" "$(printf %s "${3-}" | wc -c)" "${3-}" >&3
    timeout 20 tr -d '\r' <&3 | sed -n '1p; /^$/,$p'
    exec 3>&-
}
answers() { (request GET /page) >/dev/null; }
owners() { processes nginx: | cut -d' ' -f1 | sort -u | tr '\n' ' '; }
served_by() { [[ $(owners) == "${1:+$1 }" ]]; }

echo 'a page of mine' >/var/www/html/page
mkdir -m 755 /srv/kept
chown www-data /srv/kept
nginx -t
nginx
patiently answers
processes nginx: | sort -u
request GET /page
request GET /none | head -n1
request PUT /kept/file 'what a client sent'
request MKCOL /kept/directory/
request PUT /kept/directory/file 'more'
list /srv
cat /srv/kept/file
request DELETE /kept/file
ls /srv/kept
list /var/log/nginx
list /var/lib/nginx
list /run/nginx.pid

# The master opens new logs and gives them to the workers' user.
mv /var/log/nginx/access.log /var/log/nginx/access.log.1
nginx -s reopen
reopened() { [[ $(stat -c %U /var/log/nginx/access.log) == www-data ]]; }
patiently reopened
request GET /page
patiently grep -q page /var/log/nginx/access.log
list /var/log/nginx

sed -i 's/^user .*/user daemon;/' /etc/nginx/nginx.conf
nginx -s reload
patiently served_by 'daemon:daemon root:root'
request GET /page
nginx -s stop
patiently served_by ''
[[ ! -e /run/nginx.pid ]]
