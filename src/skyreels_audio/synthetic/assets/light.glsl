// One lamp, one weaker lamp, and light from all around.
uniform vec3 camera, key_direction, key_colour, fill_direction, fill_colour, sky, ground;

// What a surface's albedo (diffuse) and its specular strength (gleam) are multiplied by. `visible`: share of the
// surroundings that it sees; `wrap`: how far light creeps around it, per colour (skin: red the furthest).
void illuminate(vec3 place, vec3 n, float visible, float sharpness, vec3 wrap, out vec3 diffuse, out vec3 gleam) {
    vec3 view = normalize(camera - place);
    vec3 key = clamp((vec3(dot(n, key_direction)) + wrap) / (1.0 + wrap), 0.0, 1.0);
    vec3 fill = clamp((vec3(dot(n, fill_direction)) + wrap) / (1.0 + wrap), 0.0, 1.0);
    vec3 ambient = mix(ground, sky, 0.5 + 0.5 * n.z) * visible;
    diffuse = key_colour * key * mix(1.0, visible, 0.75) + fill_colour * fill * visible + ambient;
    float grazing = 1.0 - max(dot(n, view), 0.0), fresnel = 0.04 + 0.5 * grazing * grazing * grazing * grazing;
    vec3 bounce = key_colour * pow(max(dot(n, normalize(key_direction + view)), 0.0), sharpness);
    gleam = visible * (bounce * (0.3 + fresnel) + fresnel * ambient);
}
